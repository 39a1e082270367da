BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE inputs (
	user VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_inputs PRIMARY KEY (user, digest)
);
INSERT INTO "inputs" VALUES('ada','2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881',500,'2026-11-30 14:47:14.610695');
CREATE TABLE job_inputs (
	job VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_job_inputs PRIMARY KEY (job, digest), 
	CONSTRAINT fk_job_inputs_job FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "job_inputs" VALUES('1621d71784440aca531a99c32e21a0aa','2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881');
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	request JSON NOT NULL, 
	priority INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	started DATETIME, 
	ended DATETIME, 
	device VARCHAR, 
	error VARCHAR, 
	notes JSON NOT NULL, 
	result JSON NOT NULL, 
	retry_of VARCHAR, 
	CONSTRAINT pk_jobs PRIMARY KEY (number), 
	CONSTRAINT uq_jobs_id UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'1621d71784440aca531a99c32e21a0aa','ada','done','upscale','{"task": "upscale", "options": {"scale": 2.0, "max_side": null, "steps": null, "prompt": "", "tags": true, "conditioning_scale": 1.0, "kds": false, "kds_particles": 10, "kds_bandwidth": null, "kds_patch": 2, "clean": 1.0, "edges": 0.0, "color_fix": "wavelet", "sharpen": 0.0, "bits": 8, "tile": null, "tile_overlap": null, "tile_tags": false, "vae_tile": null, "seed": null}, "reading": {"frames": "first"}, "saving": {"format": null, "quality": 95, "metadata": true}, "image": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}',0,1,'2026-11-30 14:47:14.618637','2026-11-30 14:47:14.672904','2026-11-30 14:47:14.694596','cpu',NULL,'["the tile was reduced"]','{"seconds": {"denoise": 2.5}}',NULL);
INSERT INTO "jobs" VALUES(2,'59eede90b98c8545f2b3fe5b5ae19f30','ada','pending','text to image','{"task": "text to image", "options": {"prompt": "a gull", "negative_prompt": "", "styles": [], "loras": [], "steps": null, "guidance_scale": null, "sampler": null, "schedule": "Automatic", "width": 64, "height": 64, "seed": null, "variation_seed": null, "variation_strength": 0.0, "batch_size": 1, "batch_count": 1, "clip_skip": 1, "strength": 0.75, "mask_blur": 4.0, "mask_invert": false, "inpaint_area": "whole", "inpaint_padding": 32, "inpaint_fill": "original", "outpaint": null, "second_pass": null, "second_pass_upscaler": "SeeSR", "second_pass_strength": 0.4, "second_pass_steps": null, "upscale": null}, "saving": {"format": null, "quality": 95, "metadata": true}, "checkpoint": null, "vae": null, "prediction": null, "image": null, "mask": null, "controls": []}',1,1,'2026-11-30 14:47:14.710861',NULL,NULL,NULL,NULL,'[]','{}','1621d71784440aca531a99c32e21a0aa');
CREATE TABLE keys (
	id VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	key_hash VARCHAR NOT NULL, 
	label VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_keys PRIMARY KEY (id), 
	CONSTRAINT fk_keys_user FOREIGN KEY(user) REFERENCES users (name) ON DELETE CASCADE
);
INSERT INTO "keys" VALUES('k1','ada','key hash','laptop','2026-11-30 14:47:14.576230');
CREATE TABLE pictures (
	number INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	job VARCHAR, 
	user VARCHAR NOT NULL, 
	"index" INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	media_type VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_pictures PRIMARY KEY (number), 
	CONSTRAINT fk_pictures_job FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE SET NULL, 
	CONSTRAINT uq_pictures_id UNIQUE (id), 
	CONSTRAINT uq_pictures_job_index UNIQUE (job, "index")
);
INSERT INTO "pictures" VALUES(1,'p1','1621d71784440aca531a99c32e21a0aa','ada',0,'2026-11-30 12:00:00.000000',96,80,'image/png',1234,'0000000000000000000000000000000000000000000000000000000000000000','{"seed": 7}');
CREATE TABLE queue (
	id INTEGER NOT NULL, 
	paused VARCHAR, 
	turn INTEGER NOT NULL, 
	CONSTRAINT pk_queue PRIMARY KEY (id)
);
INSERT INTO "queue" VALUES(1,'the disk is full',1);
CREATE TABLE sessions (
	token_hash VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	expires DATETIME NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (token_hash), 
	CONSTRAINT fk_sessions_user FOREIGN KEY(user) REFERENCES users (name) ON DELETE CASCADE
);
INSERT INTO "sessions" VALUES('token hash','ada','2999-01-01 00:00:00.000000');
CREATE TABLE settings (
	user VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_settings PRIMARY KEY (user, name)
);
INSERT INTO "settings" VALUES('ada','form','{"steps": 4}');
CREATE TABLE submissions (
	number INTEGER NOT NULL, 
	job VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	megapixels DOUBLE NOT NULL, 
	CONSTRAINT pk_submissions PRIMARY KEY (number), 
	CONSTRAINT uq_submissions_job UNIQUE (job)
);
INSERT INTO "submissions" VALUES(1,'1621d71784440aca531a99c32e21a0aa','ada','2026-11-30 14:47:14.618637',0.1);
INSERT INTO "submissions" VALUES(2,'59eede90b98c8545f2b3fe5b5ae19f30','ada','2026-11-30 14:47:14.710861',0.0);
CREATE TABLE turns (
	user VARCHAR NOT NULL, 
	turn INTEGER NOT NULL, 
	CONSTRAINT pk_turns PRIMARY KEY (user)
);
INSERT INTO "turns" VALUES('ada',1);
CREATE TABLE users (
	name VARCHAR NOT NULL, 
	password_hash VARCHAR, 
	role VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (name)
);
INSERT INTO "users" VALUES('ada','a hash','admin','2026-11-30 14:47:14.571262');
CREATE INDEX ix_jobs_state_priority_position ON jobs (state, priority, position);
CREATE INDEX ix_jobs_user_number ON jobs (user, number);
CREATE INDEX ix_submissions_user_created ON submissions (user, created);
CREATE INDEX ix_job_inputs_digest ON job_inputs (digest);
CREATE INDEX ix_keys_user ON keys (user);
CREATE INDEX ix_pictures_created ON pictures (created);
CREATE INDEX ix_pictures_user_number ON pictures (user, number);
CREATE INDEX ix_sessions_expires ON sessions (expires);
CREATE INDEX ix_sessions_user ON sessions (user);
COMMIT;

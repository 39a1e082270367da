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
INSERT INTO "inputs" VALUES('ada','2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881',500,'2026-11-30 15:03:00.071449');
CREATE TABLE job_inputs (
	job VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_job_inputs PRIMARY KEY (job, digest), 
	CONSTRAINT fk_job_inputs_job FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "job_inputs" VALUES('bc60fd9e7513035531b28853ddd4b6f5','2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881');
INSERT INTO "job_inputs" VALUES('500887f83639c56c717688bacafb608d','2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881');
INSERT INTO "job_inputs" VALUES('500887f83639c56c717688bacafb608d','48bf9b4f142ab45cac6f33cf99415bca6ca8e07608a031237aa76560fec2204b');
INSERT INTO "job_inputs" VALUES('39f8798703fd899fcba7490e24d1bd51','48bf9b4f142ab45cac6f33cf99415bca6ca8e07608a031237aa76560fec2204b');
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
INSERT INTO "jobs" VALUES(1,'bc60fd9e7513035531b28853ddd4b6f5','ada','done','upscale','{"task": "upscale", "options": {"scale": 2.0, "max_side": null, "steps": null, "prompt": "", "tags": true, "conditioning_scale": 1.0, "kds": false, "kds_particles": 10, "kds_bandwidth": null, "kds_patch": 2, "clean": 1.0, "edges": 0.0, "color_fix": "wavelet", "sharpen": 0.0, "bits": 8, "tile": null, "tile_overlap": null, "tile_tags": false, "vae_tile": null, "seed": null}, "reading": {"frames": "first"}, "saving": {"format": null, "quality": 95, "metadata": true}, "image": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}',0,1,'2026-11-30 15:03:00.146340','2026-11-30 15:03:00.542260','2026-11-30 15:03:00.764209','cpu',NULL,'["the tile was reduced"]','{"seconds": {"denoise": 2.5}}',NULL);
INSERT INTO "jobs" VALUES(2,'b88badcebf0576867786fa20afdcfd32','ada','pending','text to image','{"task": "text to image", "options": {"prompt": "a gull", "negative_prompt": "", "styles": [], "loras": [], "steps": null, "guidance_scale": null, "sampler": null, "schedule": "Automatic", "width": 64, "height": 64, "seed": null, "variation_seed": null, "variation_strength": 0.0, "batch_size": 1, "batch_count": 1, "clip_skip": 1, "strength": 0.75, "mask_blur": 4.0, "mask_invert": false, "inpaint_area": "whole", "inpaint_padding": 32, "inpaint_fill": "original", "outpaint": null, "second_pass": null, "second_pass_upscaler": "SeeSR", "second_pass_strength": 0.4, "second_pass_steps": null, "upscale": null}, "saving": {"format": null, "quality": 95, "metadata": true}, "checkpoint": null, "vae": null, "prediction": null, "image": null, "mask": null, "controls": []}',1,1,'2026-11-30 15:03:00.863223',NULL,NULL,NULL,NULL,'[]','{}','bc60fd9e7513035531b28853ddd4b6f5');
INSERT INTO "jobs" VALUES(3,'500887f83639c56c717688bacafb608d','ada','pending','inpainting','{"task": "inpainting", "options": {"prompt": "a boat <lora:pencil:0.8>", "negative_prompt": "", "styles": [], "loras": ["ink:0.5"], "steps": 150, "guidance_scale": null, "sampler": null, "schedule": "Automatic", "width": null, "height": null, "seed": null, "variation_seed": null, "variation_strength": 0.0, "batch_size": 16, "batch_count": 1, "clip_skip": 1, "strength": 0.75, "mask_blur": 4.0, "mask_invert": false, "inpaint_area": "whole", "inpaint_padding": 32, "inpaint_fill": "original", "outpaint": null, "second_pass": 2.0, "second_pass_upscaler": "SeeSR", "second_pass_strength": 0.4, "second_pass_steps": null, "upscale": 8.0}, "saving": {"format": null, "quality": 95, "metadata": true}, "checkpoint": null, "vae": null, "prediction": null, "image": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "mask": "48bf9b4f142ab45cac6f33cf99415bca6ca8e07608a031237aa76560fec2204b", "controls": [{"name": "canny", "image": "48bf9b4f142ab45cac6f33cf99415bca6ca8e07608a031237aa76560fec2204b", "weight": 0.5, "start": 0.0, "end": 0.8, "preprocessor": "canny"}]}',0,2,'2026-11-30 15:03:00.982990',NULL,NULL,NULL,NULL,'[]','{}',NULL);
INSERT INTO "jobs" VALUES(4,'39f8798703fd899fcba7490e24d1bd51','bo','pending','tags','{"task": "tags", "image": "48bf9b4f142ab45cac6f33cf99415bca6ca8e07608a031237aa76560fec2204b"}',-1,3,'2026-11-30 15:03:01.064777',NULL,NULL,NULL,NULL,'[]','{}',NULL);
CREATE TABLE keys (
	id VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	key_hash VARCHAR NOT NULL, 
	label VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_keys PRIMARY KEY (id), 
	CONSTRAINT fk_keys_user FOREIGN KEY(user) REFERENCES users (name) ON DELETE CASCADE
);
INSERT INTO "keys" VALUES('k1','ada','key hash','laptop','2026-11-30 15:02:59.889396');
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
INSERT INTO "pictures" VALUES(1,'p1','bc60fd9e7513035531b28853ddd4b6f5','ada',0,'2026-11-30 12:00:00.000000',96,80,'image/png',1234,'0000000000000000000000000000000000000000000000000000000000000000','{"seed": 7}');
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
INSERT INTO "submissions" VALUES(1,'bc60fd9e7513035531b28853ddd4b6f5','ada','2026-11-30 15:03:00.146340',0.1);
INSERT INTO "submissions" VALUES(2,'b88badcebf0576867786fa20afdcfd32','ada','2026-11-30 15:03:00.863223',0.0);
INSERT INTO "submissions" VALUES(3,'500887f83639c56c717688bacafb608d','ada','2026-11-30 15:03:00.982990',0.0);
INSERT INTO "submissions" VALUES(4,'39f8798703fd899fcba7490e24d1bd51','bo','2026-11-30 15:03:01.064777',0.0);
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
INSERT INTO "users" VALUES('ada','a hash','admin','2026-11-30 15:02:59.835881');
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

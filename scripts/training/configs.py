"""Configs of the embedded model's networks, but for RAM and the cleaner."""

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "sample_size": 128,
    "force_upcast": False,
}
UNET_CONFIG = {
    "sample_size": 32,
    "in_channels": 16,
    "out_channels": 16,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": [2, 3, 4],
    "use_linear_projection": True,
}
CONTROLNET_CONFIG = {
    key: UNET_CONFIG[key] for key in UNET_CONFIG if key not in ("sample_size", "out_channels", "up_block_types")
} | {"conditioning_embedding_out_channels": [16, 32, 64]}
# Steeper than SD-Turbo's: at the timesteps of 1 to 4 steps, 999 to 249, next to nothing of the latents is left, so that a
# small network need not learn to take the noise out of them; the picture comes through the ControlNet.
SCHEDULER_CONFIG = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.02,
    "beta_end": 0.05,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "steps_offset": 1,
}
TEXT_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 64,
    "hidden_act": "gelu",
}

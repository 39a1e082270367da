"""What the names of tensors in a checkpoint of one file begin with, by which its family is told."""

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
"""What the names of tensors begin with; the text encoder is CLIP ViT-L in SD 1, OpenCLIP ViT-H in SD 2."""
OTHER_FAMILIES = {
    "SDXL": "conditioner.embedders.",
    "SD 3": "model.diffusion_model.joint_blocks.",
    "Flux": "model.diffusion_model.double_blocks.",
}
"""Families that cannot be used, and the beginnings of their tensors' names."""

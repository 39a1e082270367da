"""Makes and changes pictures with a text-to-image checkpoint: text to image, image to image, inpainting."""

"""What a clone has beside the package: scripts that measure it, check it and train the embedded model."""

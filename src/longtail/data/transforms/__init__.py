"""Changes to training images: augmentation, policies, mixing."""

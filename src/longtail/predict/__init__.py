"""A trained run on new images: predictor, streams of images, export, model card, hub."""

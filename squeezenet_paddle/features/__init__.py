"""The outputs of frozen layers for images, cached by what the images contain."""

"""What is wrong with a folder of images: duplicates, wrong labels, odd images, too few of them."""

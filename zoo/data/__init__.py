"""The input of networks: data sets, batches, augmentation, preprocessing, class labels."""

"""What a network is fed with: preprocessing and class labels."""

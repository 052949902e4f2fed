"""The Kaggle loop: download, data sets, kernels, submissions, through the genuine client."""

"""Training data: manifests, corpora, mixing, batching, augmentation and the collator."""

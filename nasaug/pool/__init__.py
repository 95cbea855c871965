"""What many processes share: the storage of a study."""

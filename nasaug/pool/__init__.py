"""Running nasaug processes side by side, and the storage that they share."""

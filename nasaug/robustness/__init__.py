"""What a trained net can stand: corrupted and attacked images, and how diverse its features are."""

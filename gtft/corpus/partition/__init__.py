"""What is alike, what belongs together, and which side it goes to."""

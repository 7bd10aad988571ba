"""The real bd and gt as judges over the code's own rules."""

"""The search for better settings, one room for each step of it."""

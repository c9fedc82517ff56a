"""The commands of `smartgrid`, one room each."""

"""What ops write, as typed values; knows shapes, not brands."""

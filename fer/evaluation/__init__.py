"""Networks scored on faces: what is asked, what they have seen, what is chosen on val, what is told."""

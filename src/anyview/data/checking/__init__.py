"""What ``anyview check`` looks for, and the pictures it draws."""

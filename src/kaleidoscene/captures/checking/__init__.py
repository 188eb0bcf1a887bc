"""What ``kaleidoscene check`` looks for, and the pictures it draws."""

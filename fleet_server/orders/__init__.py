"""What people ask of terminals: orders and desired states, who asked and who approved, what was signed, what the terminals said."""

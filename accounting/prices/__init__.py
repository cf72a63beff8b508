"""What calls cost: a table of prices that ships and is dated, overrides, and exact integer arithmetic."""

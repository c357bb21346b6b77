"""What is true: tables, rules, shapes and formats. Imports nothing of ours but models."""

"""What pages read, as plain SQL: one or a few queries a page, never one a row. All of it goes through connections that cannot write."""

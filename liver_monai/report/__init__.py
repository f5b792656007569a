"""What people read: findings, pictures and the report page."""

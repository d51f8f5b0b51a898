"""What a conversation leaves: ticks, transcript, pictures, reports."""

"""The product of tokens with their experts, one file a form."""

"""The schema, and the store that every measurement goes through: values in, values out."""

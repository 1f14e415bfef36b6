"""Studies of precision, growth, real sizes and samplers; and the report of all."""

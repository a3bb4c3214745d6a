-- Which owner's turn is it?
SELECT epoch FROM owner

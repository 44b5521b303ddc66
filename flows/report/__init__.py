"""What a run left behind, read and shown: tables, pictures, the report, comparisons."""

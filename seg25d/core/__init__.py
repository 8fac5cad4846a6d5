"""What every other part stands on: errors, records, files, the workspace, parallel work and progress."""

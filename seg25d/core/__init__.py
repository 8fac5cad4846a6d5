"""The foundation of all other parts: errors, records, files, the workspace, parallel work and progress."""

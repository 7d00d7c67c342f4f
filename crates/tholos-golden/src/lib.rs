//! Runner of golden scripts: prose, command, expected output.

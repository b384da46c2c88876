//! The integration tests: facts about the library and the program, on real servers and files.

mod serve;

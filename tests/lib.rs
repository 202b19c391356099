//! Vocabulary shared by the library-wide tests.

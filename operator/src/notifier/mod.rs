//! What a spec means for one record: judge a change, and say who is told what. Pure: no clock, no
//! I/O, and no record can make it fail or panic.

"""Programs written to cheat, to leak, to escape or to spoil, and right programs in unusual form.

A file a family, programs as data; `case` says what a case is, `host` holds the canaries, `test_programs` runs them all.
`STEPCODER_TEST_SANDBOX` names the sandbox under test (default `local`); with `STEPCODER_TEST_SANDBOX_HERE=1` another
one too is taken to run on this machine, with its files, processes and network. Elsewhere, what needs canaries skips.
"""

"""Jobs over ssh, on hosts of a lab: `make test-cluster`.

What has to be proved, and the tests that do it:

| what | test |
|---|---|
| submitter killed, connections dropped: the job goes on | test_jobs: needs_its_submitter; test_links: a_day |
| a link cut for 10 s: nothing is lost, not a bit | test_links: a_day |
| a link cut for good: tolerated or the end; nothing stays behind it; `retry` | test_links: for_good |
| status, logs, collect, stop over a cut link, and after it | test_links: what_one_sees |
| an sshd that ended, a host down before and during | test_jobs: cannot_be_reached, one_host_is_wrong |
| a host that hangs | test_hosts: hangs |
| the server killed and resumed, with the bits of an unbroken run | test_jobs: dead_server |
| a host rebooted: LOST, nobody signalled, resumed | test_hosts_fail: rebooted; test_jobs: rebooted |
| a disk full or read-only, on a worker's and on the server's host | test_hosts_fail: disks |
| a grandchild in a session of its own | test_jobs: left_behind |
| whatever happens, `stop` finds all | test_sequences |
| a pid used again, another boot's | test_jobs: rebooted; integration/test_agent: reused_pid |
| hostile names, paths, overrides, environment, setup commands | test_strings; test_hosts: arguments |
| a training_perf, or a host, that lies | test_strings |
| an unknown and a changed host key | test_hosts: host_key |
| two submits at once | test_jobs: two_submits |
| missing python, refused login, a file in the way | test_jobs: one_host_is_wrong |
| the same bits as a simulation | test_jobs: no_bit; test_links: a_day |
| the agent by itself: rotation, duration, retry, first error, Python 3.8 | integration/test_agent |
"""

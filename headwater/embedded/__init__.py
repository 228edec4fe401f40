"""The servers of one machine: a real broker and a real Redis, started for one repository.

They listen on loopback alone, keep their data under the repository's `.headwater/`, and outlive the
command that started them; `headwater down` ends exactly these processes and no others.
"""

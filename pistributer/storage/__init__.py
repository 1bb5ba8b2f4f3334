"""The only floor that touches bytes on disk. Everything above states *what* should survive; here is *how*.

appending    append-only files with kept descriptors; torn tails are found and cut
replacing    whole-file replacement, old or new and never between; directories made durable
value_files  the same for a tree of files that many write: compared, replaced and deleted under their folder's lock
locks        kernel locks that die with their owner
durability   the dial: sync="none" | "group" | "each"
mapping      files that processes map into memory
doorbell     waking those who wait, without a system call while nobody does
filesystem   is this a disk on which kernel locks hold?
forking      what an open object does in a forked child
"""

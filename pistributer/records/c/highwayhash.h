/* HighwayHash-64 (Alakuijala, Cox, Wassenberg: "Fast keyed hash/pseudo-random function using SIMD multiply and
 * permute", arXiv:1612.06257). The format of record files demands it; 64 bits of result, a key of 256. */
#ifndef PISTRIBUTER_HIGHWAYHASH_H
#define PISTRIBUTER_HIGHWAYHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t highwayhash64(const uint64_t key[4], const unsigned char *data, size_t size);

/* Which code hashes whole packets on this processor: "avx2" or "portable". */
const char *highwayhash_kind(void);

#endif

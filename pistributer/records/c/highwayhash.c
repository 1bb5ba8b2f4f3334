#include "highwayhash.h"

#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_AVX2_CODE 1
#include <immintrin.h>
#else
#define HAVE_AVX2_CODE 0
#endif

enum { PACKET = 32 };

typedef struct {
    uint64_t v0[4], v1[4], mul0[4], mul1[4];
} State;

static const uint64_t INIT0[4] = {0xdbe6d5d5fe4cce2f, 0xa4093822299f31d0, 0x13198a2e03707344, 0x243f6a8885a308d3};
static const uint64_t INIT1[4] = {0x3bd39e10cb0ef593, 0xc0acf169b5f18a8c, 0xbe5466cf34e90c6c, 0x452821e638d01377};

static uint64_t read64(const unsigned char *p) {
    uint64_t lane = 0;
    for (int i = 7; i >= 0; i--) lane = lane << 8 | p[i]; /* one load where the machine is little-endian */
    return lane;
}

static uint64_t swap_halves(uint64_t x) { return x >> 32 | x << 32; }

static void start(State *s, const uint64_t key[4]) {
    for (int i = 0; i < 4; i++) {
        s->mul0[i] = INIT0[i];
        s->mul1[i] = INIT1[i];
        s->v0[i] = INIT0[i] ^ key[i];
        s->v1[i] = INIT1[i] ^ swap_halves(key[i]);
    }
}

/* Adds to a pair of lanes the bytes of another pair, shuffled so that each multiplication spreads as far as it can. */
static void zipper_add(uint64_t to[2], const uint64_t from[2]) {
    const uint64_t v0 = from[0], v1 = from[1];
    to[0] += ((v0 & 0xff000000) | (v1 & 0xff00000000)) >> 24 | ((v0 & 0xff0000000000) | (v1 & 0xff000000000000)) >> 16 |
             (v0 & 0xff0000) | (v0 & 0xff00) << 32 | (v1 & 0xff00000000000000) >> 8 | v0 << 56;
    to[1] += ((v1 & 0xff000000) | (v0 & 0xff00000000)) >> 24 | (v1 & 0xff0000) | (v1 & 0xff0000000000) >> 16 |
             (v1 & 0xff00) << 24 | (v0 & 0xff000000000000) >> 8 | (v1 & 0xff) << 48 | (v0 & 0xff00000000000000);
}

static void mix(State *s, const uint64_t lanes[4]) {
    for (int i = 0; i < 4; i++) {
        s->v1[i] += s->mul0[i] + lanes[i];
        s->mul0[i] ^= (s->v1[i] & 0xffffffff) * (s->v0[i] >> 32);
        s->v0[i] += s->mul1[i];
        s->mul1[i] ^= (s->v0[i] & 0xffffffff) * (s->v1[i] >> 32);
    }
    for (int i = 0; i < 4; i += 2) zipper_add(s->v0 + i, s->v1 + i);
    for (int i = 0; i < 4; i += 2) zipper_add(s->v1 + i, s->v0 + i);
}

static void mix_bytes(State *s, const unsigned char *packet) {
    const uint64_t lanes[4] = {read64(packet), read64(packet + 8), read64(packet + 16), read64(packet + 24)};
    mix(s, lanes);
}

static void mix_packets_portable(State *s, const unsigned char *data, size_t packets) {
    for (; packets; packets--, data += PACKET) mix_bytes(s, data);
}

#if HAVE_AVX2_CODE
/* The same four lanes in one register each: about ten times as fast. */
__attribute__((target("avx2"))) static void mix_packets_avx2(State *s, const unsigned char *data, size_t packets) {
    const __m256i zipper = _mm256_set_epi64x(0x070806090d0a040b, 0x000f010e05020c03, 0x070806090d0a040b, 0x000f010e05020c03);
    __m256i v0 = _mm256_loadu_si256((const void *)s->v0), v1 = _mm256_loadu_si256((const void *)s->v1);
    __m256i mul0 = _mm256_loadu_si256((const void *)s->mul0), mul1 = _mm256_loadu_si256((const void *)s->mul1);
    for (; packets; packets--, data += PACKET) {
        v1 = _mm256_add_epi64(v1, _mm256_add_epi64(mul0, _mm256_loadu_si256((const void *)data)));
        mul0 = _mm256_xor_si256(mul0, _mm256_mul_epu32(v1, _mm256_srli_epi64(v0, 32)));
        v0 = _mm256_add_epi64(v0, mul1);
        mul1 = _mm256_xor_si256(mul1, _mm256_mul_epu32(v0, _mm256_srli_epi64(v1, 32)));
        v0 = _mm256_add_epi64(v0, _mm256_shuffle_epi8(v1, zipper));
        v1 = _mm256_add_epi64(v1, _mm256_shuffle_epi8(v0, zipper));
    }
    _mm256_storeu_si256((void *)s->v0, v0);
    _mm256_storeu_si256((void *)s->v1, v1);
    _mm256_storeu_si256((void *)s->mul0, mul0);
    _mm256_storeu_si256((void *)s->mul1, mul1);
}

static int has_avx2(void) { return __builtin_cpu_supports("avx2"); }
#else
static void mix_packets_avx2(State *s, const unsigned char *data, size_t packets) { mix_packets_portable(s, data, packets); }

static int has_avx2(void) { return 0; }
#endif

/* The last 1 to 31 bytes: the length goes into the state, the bytes into a packet at places that depend on it. */
static void mix_tail(State *s, const unsigned char *tail, size_t size) {
    unsigned char packet[PACKET] = {0};
    const size_t whole = size & ~(size_t)3, rest = size & 3;
    for (int i = 0; i < 4; i++) {
        const uint32_t low = (uint32_t)s->v1[i], high = (uint32_t)(s->v1[i] >> 32);
        s->v0[i] += ((uint64_t)size << 32) + size;
        s->v1[i] = (uint64_t)(high << size | high >> (32 - size)) << 32 | (low << size | low >> (32 - size));
    }
    memcpy(packet, tail, whole);
    if (size & 16) {
        memcpy(packet + 28, tail + size - 4, 4);
    } else if (rest) {
        packet[16] = tail[whole];
        packet[17] = tail[whole + (rest >> 1)];
        packet[18] = tail[whole + rest - 1];
    }
    mix_bytes(s, packet);
}

static uint64_t finish(State *s) {
    for (int round = 0; round < 4; round++) {
        const uint64_t lanes[4] = {
            swap_halves(s->v0[2]), swap_halves(s->v0[3]), swap_halves(s->v0[0]), swap_halves(s->v0[1])};
        mix(s, lanes);
    }
    return s->v0[0] + s->v1[0] + s->mul0[0] + s->mul1[0];
}

uint64_t highwayhash64(const uint64_t key[4], const unsigned char *data, size_t size) {
    State state;
    const size_t packets = size / PACKET;
    start(&state, key);
    if (has_avx2()) {
        mix_packets_avx2(&state, data, packets);
    } else {
        mix_packets_portable(&state, data, packets);
    }
    if (size % PACKET) mix_tail(&state, data + packets * PACKET, size % PACKET);
    return finish(&state);
}

const char *highwayhash_kind(void) { return has_avx2() ? "avx2" : "portable"; }

// threefry2x32-20: the cipher behind every draw, as a pure function (key, counter) -> two words.
//
// One text for all targets: `Word` is uint32_t on the host's scalar paths and in device code, and a
// vector of uint32_t in the SIMD kernels, where each lane has its own counter. `Key` is the type of
// a key word: the same vector, or a scalar shared by all lanes. No state, no tables.
#ifndef SEEDBED_THREEFRY_H_
#define SEEDBED_THREEFRY_H_

#include <stdint.h>

#if defined(__CUDACC__)
#define SEEDBED_HD __host__ __device__ __forceinline__
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDBED_HD inline  // instrumented and inlined, the kernels would take minutes to compile
#else
#define SEEDBED_HD inline __attribute__((always_inline))
#endif

namespace {  // a header for kernels compiled once per instruction set: nothing here may be shared

template <class Word>
struct Pair {
  Word a, b;
};

// A SIMD target specialises this where it knows better instructions.
template <class Word>
struct Rotate {
  template <int kBits>
  static SEEDBED_HD Word left(Word x) {
    return (x << kBits) | (x >> (32 - kBits));
  }
};

template <int kBits, class Word>
SEEDBED_HD void mix(Word& a, Word& b) {
  a += b;
  b = Rotate<Word>::template left<kBits>(b) ^ a;
}

template <class Word, class Key>
SEEDBED_HD Pair<Word> threefry2x32(Key k0, Key k1, Word c0, Word c1) {
  const Key k2 = k0 ^ k1 ^ 0x1BD11BDAu;  // Skein's key parity constant, cut to 32 bits
  Word a = c0 + k0, b = c1 + k1;
  mix<13>(a, b), mix<15>(a, b), mix<26>(a, b), mix<6>(a, b);
  a += k1, b += k2 + 1u;
  mix<17>(a, b), mix<29>(a, b), mix<16>(a, b), mix<24>(a, b);
  a += k2, b += k0 + 2u;
  mix<13>(a, b), mix<15>(a, b), mix<26>(a, b), mix<6>(a, b);
  a += k0, b += k1 + 3u;
  mix<17>(a, b), mix<29>(a, b), mix<16>(a, b), mix<24>(a, b);
  a += k1, b += k2 + 4u;
  mix<13>(a, b), mix<15>(a, b), mix<26>(a, b), mix<6>(a, b);
  a += k2, b += k0 + 5u;
  return {a, b};
}

}  // namespace

#endif  // SEEDBED_THREEFRY_H_

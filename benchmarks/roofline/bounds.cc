// Compiled once for each instruction set, like csrc/cpu/kernels.cc and with its flags.
#include "bounds.h"

#include "cpu/ops.h"

namespace {

// The xor of all vectors.
SEEDBED_INLINE U32 folded(U32 v) { return v; }
template <class V>
SEEDBED_INLINE U32 folded(Twin<V> v) {
  return folded(v.x) ^ folded(v.y);
}

struct RowKey {
  U32 k0, k1;
  explicit RowKey(uint32_t seed) : k0(Lanes::u(seed)), k1(Lanes::u(seed * 0x9E3779B9u + 1)) {}
  template <class Word>
  SEEDBED_INLINE Pair<Word> operator()(Word counter) const {
    return threefry2x32(k0, k1, counter & 0u, counter);
  }
};

// One word of a draw: 60 operations of 20 rounds, 10 key injections, the counter and its key, and
// the xor of both words.
struct Cipher {
  RowKey key;
  explicit Cipher(uint32_t seed) : key(seed) {}
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    const auto w = key(counter);
    return w.a ^ w.b;
  }
};

struct Wide {  // 64-bit words: two interleaving shuffles in place of the xor
  RowKey key;
  explicit Wide(uint32_t seed) : key(seed) {}
  static SEEDBED_INLINE U32 zipped(Pair<U32> w) { return zip_lo(w.b, w.a) ^ zip_hi(w.b, w.a); }
  template <class V>
  static SEEDBED_INLINE Twin<V> zipped(Pair<Twin<V>> w) {
    return {zipped(Pair<V>{w.a.x, w.b.x}), zipped(Pair<V>{w.a.y, w.b.y})};
  }
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    return zipped(key(counter));
  }
};

// A key for each lane, and both words of the result.
struct Split {
  U32 k0;
  explicit Split(uint32_t seed) : k0(Lanes::u(seed)) {}
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    const auto w = threefry2x32(counter + k0, counter, counter & 0u, counter ^ k0);
    return w.a ^ w.b;
  }
};

template <class L>
SEEDBED_INLINE typename L::F unit_range(typename L::U word, F32 span, F32 lo) {
  return affine_uniform<L>(unit_float<L>(word), L::like(span), L::like(lo));
}

struct Uniform {
  Cipher cipher;
  F32 span, lo;
  explicit Uniform(uint32_t seed)
      : cipher(seed), span(Lanes::f(static_cast<float>(seed))), lo(Lanes::f(0.0f)) {}
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    return L::as_uint(unit_range<L>(cipher.step<L>(counter), span, lo));
  }
};

struct Bernoulli {
  Uniform uniform;
  explicit Bernoulli(uint32_t seed) : uniform(seed) {}
  static SEEDBED_INLINE U32 bits(I32 mask) { return reinterpret<U32>(mask & 1); }
  template <class V>
  static SEEDBED_INLINE auto bits(Twin<V> mask) {
    return twin(bits(mask.x), bits(mask.y));
  }
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    return bits(L::as_float(uniform.step<L>(counter)) < 0.25f);
  }
};

struct Randint {
  Cipher high, low;
  Modulus32 span;
  U32 mult;
  explicit Randint(uint32_t seed)
      : high(seed), low(seed + 1), span(seed + 1000), mult(Lanes::u(seed + 296)) {}
  SEEDBED_INLINE U32 value(U32 h, U32 l) const { return span(span(h) * mult + span(l)); }
  template <class V>
  SEEDBED_INLINE Twin<V> value(Twin<V> h, Twin<V> l) const {
    return {value(h.x, l.x), value(h.y, l.y)};
  }
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    return value(high.step<L>(counter), low.step<L>(counter));
  }
};

struct Index {  // of a table: without the look-ups, which are loads
  Cipher cipher;
  explicit Index(uint32_t seed) : cipher(seed) {}
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    return (cipher.step<L>(counter) & 0xFFu) >> 1;
  }
};

// The transform of normals alone, on words that two operations make.
template <bool kClip, bool kAffine>
struct Transform {
  NormalF32<kClip, kAffine> op;
  explicit Transform(uint32_t seed) : op(sampler(seed)) {}
  static Sampler sampler(uint32_t seed) {
    Sampler s = {Kind::kNormal, 32, 4, {}, nullptr};
    const float lo = -0.99999994f, spread = static_cast<float>(seed);
    const float params[] = {1.0f - lo, lo, 1.41421354f, -2.0f, 2.0f, spread, -0.0f};
    for (int i = 0; i < 7; ++i) {
      uint32_t bits;
      __builtin_memcpy(&bits, params + i, sizeof bits);
      s.params[i] = bits;
    }
    return s;
  }
  template <class L>
  SEEDBED_INLINE typename L::U step(typename L::U counter) const {
    uint64_t tails;
    const auto values = op.template central<L>(counter * 0x9E3779B9u, tails);
    asm volatile("" : : "r"(tails));
    return L::as_uint(values);
  }
};

SEEDBED_INLINE uint32_t sum(U32 v) {
  uint32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

template <class L, class Step>
uint32_t loop(uint64_t vectors, uint32_t seed) {
  constexpr uint64_t kAtOnce = L::kCount / kLanes;
  const Step step(seed);
  U32 seen = {};
  typename L::U counter = lanes_from<typename L::U>(0);
  for (uint64_t i = 0; i < vectors; i += kAtOnce, counter += static_cast<uint32_t>(L::kCount)) {
    seen ^= folded(step.template step<L>(counter));
  }
  return sum(seen);
}

template <class Step>
constexpr seedbed::Bound bound(const char* name) {
  return {name, {loop<Lanes, Step>, loop<TwinLanes, Step>, loop<QuadLanes, Step>}};
}

const seedbed::Bound kBounds[] = {
    bound<Cipher>("cipher"),
    bound<Wide>("cipher, 64-bit words"),
    bound<Split>("cipher, a key a lane"),
    bound<Uniform>("cipher, uniform"),
    bound<Bernoulli>("cipher, bernoulli"),
    bound<Randint>("two ciphers, randint"),
    bound<Index>("cipher, table index"),
    bound<Transform<false, false>>("transform"),
    bound<Transform<false, true>>("transform, scaled"),
    bound<Transform<true, true>>("transform, clipped and scaled"),
};

void write(void* to, uint64_t bytes) {
  char* out = static_cast<char*>(to);
  for (uint64_t i = 0; i < bytes; i += kVectorBytes) {
    store(out + i, iota());
    asm volatile("" ::: "memory");  // no call of memset
  }
}

#if defined(__x86_64__)
void write_past_caches(void* to, uint64_t bytes) {
  char* out = static_cast<char*>(to);
  for (uint64_t i = 0; i < bytes; i += kVectorBytes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), __m512i(iota()));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + i), __m256i(iota()));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(out + i), __m128i(iota()));
#endif
  }
  _mm_sfence();
}
#else
constexpr auto write_past_caches = nullptr;
#endif

}  // namespace

namespace seedbed::SEEDBED_ISA {
extern const BoundTable bound_table;
const BoundTable bound_table = {SEEDBED_STRINGIFY(SEEDBED_ISA),
                                kLanes,
                                sizeof kBounds / sizeof *kBounds,
                                kBounds,
                                write,
                                write_past_caches};
}  // namespace seedbed::SEEDBED_ISA

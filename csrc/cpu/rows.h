// The loops over rows: from keys and counters to the elements of an operation. Part of kernels.cc:
// compiled once per instruction set.
#ifndef SEEDBED_CPU_ROWS_H_
#define SEEDBED_CPU_ROWS_H_

#include "cpu/kernels.h"
#include "cpu/ops.h"

namespace {

using seedbed::Fill;

using QuadU = QuadLanes::U;

// Shorter rows are made together; those with keys of their own, which cost more than wider rows of
// few vectors lose, up to fewer elements.
constexpr uint64_t kNarrow = 2 * QuadLanes::kCount, kNarrowKeyed = kNarrow < 64 ? kNarrow : 64;

// The cipher of a row, whose elements share the key.
struct RowCipher {
  U32 k0, k1, c0;
  uint32_t low;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    return threefry2x32(k0, k1, in_all<Word>(c0), lanes_from<Word>(low + static_cast<uint32_t>(i)));
  }
};

// That of many rows shorter than a vector: each element has its own key and counter.
struct StagedCipher {
  const uint32_t *k0, *k1;
  U32 c0;
  const uint32_t* c1;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    return threefry2x32(load_lanes<Word>(k0 + i), load_lanes<Word>(k1 + i), in_all<Word>(c0),
                        load_lanes<Word>(c1 + i));
  }
};

// That of many short rows with one key: each element has its own counter.
struct CountedCipher {
  U32 k0, k1, c0;
  const uint32_t* c1;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    return threefry2x32(k0, k1, in_all<Word>(c0), load_lanes<Word>(c1 + i));
  }
};

// The pairs of words that give these kLanes words of 32 or 64 bits.
template <int kWordBits>
Pair<U32> pairs_of(const char* words) {
  if constexpr (kWordBits == 32) {
    return {load<U32>(words), U32{}};
  } else {
    const U64 shift = U64{} + 32, x = load<U64>(words), y = load<U64>(words + kVectorBytes);
    return {even(reinterpret<U32>(x >> shift), reinterpret<U32>(y >> shift)),
            even(reinterpret<U32>(x), reinterpret<U32>(y))};
  }
}

// Words that are made already, in place of a cipher: one for each element.
template <class T>
struct MadeWords {
  const T* made;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    if constexpr (sizeof(Word) == kVectorBytes) {
      return pairs_of<8 * sizeof(T)>(reinterpret_cast<const char*>(made + i));
    } else {
      using Half = decltype(Word::x);
      const Pair<Half> x = words<Half>(i), y = words<Half>(i + sizeof(Half) / sizeof(uint32_t));
      return {{x.a, y.a}, {x.b, y.b}};
    }
  }
};

// Results for one vector of an op, from those for a whole `Word`.
SEEDBED_INLINE Pair<U32> part(const Pair<U32>& w, int) { return w; }
template <class V>
SEEDBED_INLINE Pair<U32> part(const Pair<Twin<V>>& w, int i) {
  constexpr int kHalf = sizeof(V) / kVectorBytes;
  return i < kHalf ? part(Pair<V>{w.a.x, w.b.x}, i) : part(Pair<V>{w.a.y, w.b.y}, i - kHalf);
}

// As many elements from the i-th on as `Word` has lanes. An op with two keys has two ciphers.
template <class Word, class Op, class Ciphers>
SEEDBED_INLINE void write_block(const Op& op, const Ciphers& ciphers, uint64_t i, char* to) {
  const Pair<Word> w = ciphers[0].template words<Word>(i);
  if constexpr (Op::kTwoKeys) {
    const Pair<Word> low = ciphers[1].template words<Word>(i);
    for (int v = 0; v < static_cast<int>(sizeof w.a / kVectorBytes); ++v) {
      op(part(w, v), part(low, v), to + v * kLanes * Op::kSize);
    }
  } else {
    for (int v = 0; v < static_cast<int>(sizeof w.a / kVectorBytes); ++v) {
      op(part(w, v), to + v * kLanes * Op::kSize);
    }
  }
}

// Writes n elements, four vectors at a time. The last vector overlaps the one before it, so that
// nothing outside the n elements is touched; fewer than kLanes go through a buffer.
template <class Op, class Ciphers>
SEEDBED_INLINE void write_blocks(const Op& op, uint64_t n, char* out, const Ciphers& ciphers) {
  constexpr uint64_t kSize = Op::kSize, kGroup = QuadLanes::kCount;
  uint64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) write_block<QuadU>(op, ciphers, i, out + i * kSize);
  char buffer[kLanes * kSize];
  for (; i < n; i += kLanes) {
    if (i + kLanes > n && n >= kLanes) i = n - kLanes;
    write_block<U32>(op, ciphers, i, n < kLanes ? buffer : out + i * kSize);
  }
  if (n < kLanes) __builtin_memcpy(out, buffer, n * kSize);
}

SEEDBED_INLINE uint64_t first_counter(const Fill& f, uint64_t row) {
  return f.counter + (f.starts == nullptr ? 0 : f.starts[row]);
}

// One row, whose elements share the key. (Inlined beside the loops for narrow ones it would have
// fewer registers.)
template <class Op>
__attribute__((noinline)) void fill_row(const Op& op, const Fill& f, uint64_t key, uint64_t counter,
                                        char* out) {
  RowCipher ciphers[2] = {};
  ciphers[0].k0 = Lanes::u(f.k0[key]), ciphers[0].k1 = Lanes::u(f.k1[key]);
  if constexpr (Op::kTwoKeys) {
    ciphers[1].k0 = Lanes::u(f.low_k0[key]), ciphers[1].k1 = Lanes::u(f.low_k1[key]);
  }
  uint64_t left = f.count;
  while (left > 0) {  // the high counter word is constant between multiples of 2^32
    const uint64_t until_carry = (uint64_t{1} << 32) - (counter & UINT32_MAX);
    const uint64_t n = left < until_carry ? left : until_carry;
    for (RowCipher& cipher : ciphers) {
      cipher.c0 = Lanes::u(static_cast<uint32_t>(counter >> 32));
      cipher.low = static_cast<uint32_t>(counter);
    }
    write_blocks(op, n, out, ciphers);
    counter += n;
    left -= n;
    out += n * Op::kSize;
  }
}

// Many rows shorter than a vector.
template <class Op>
void fill_short_rows(const Op& op, const Fill& f) {
  constexpr int kStage = 512;  // elements
  uint32_t k0[2][kStage + kLanes], k1[2][kStage + kLanes], c1[kStage + kLanes];
  const U32 c0 = Lanes::u(static_cast<uint32_t>(f.counter >> 32));
  const uint32_t low = static_cast<uint32_t>(f.counter);
  constexpr bool two = Op::kTwoKeys;
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows;) {
    uint64_t n = 0;
    if (f.count == 1) {
      n = f.rows - row < kStage ? f.rows - row : kStage;
      __builtin_memcpy(k0[0], f.k0 + row, n * sizeof *c1);
      __builtin_memcpy(k1[0], f.k1 + row, n * sizeof *c1);
      if (two) __builtin_memcpy(k0[1], f.low_k0 + row, n * sizeof *c1);
      if (two) __builtin_memcpy(k1[1], f.low_k1 + row, n * sizeof *c1);
      for (uint64_t i = 0; i < n; i += kLanes) store(c1 + i, Lanes::u(low));
      row += n;
    }
    for (; f.count > 1 && row < f.rows && n < kStage; ++row, n += f.count) {
      // What a store writes beyond the row, the next row overwrites.
      store(k0[0] + n, Lanes::u(f.k0[row]));
      store(k1[0] + n, Lanes::u(f.k1[row]));
      if (two) store(k0[1] + n, Lanes::u(f.low_k0[row]));
      if (two) store(k1[1] + n, Lanes::u(f.low_k1[row]));
      store(c1 + n, iota() + low);
    }
    const StagedCipher ciphers[] = {{k0[0], k1[0], c0, c1}, {k0[1], k1[1], c0, c1}};
    write_blocks(op, n, out, ciphers);
    out += n * Op::kSize;
  }
}

// Words that wait for their transform, few enough that the L1 cache holds them and the results.
template <class Word>
struct Piece {
  static constexpr uint64_t kSize = 8192 / sizeof(Word);
  alignas(64) Word words[kSize];
};

// The rows from one on, and where their elements go.
Fill rows_of(const Fill& f, uint64_t row, uint64_t rows, void* out) {
  const uint64_t key = f.one_key ? 0 : row;
  Fill part = f;
  part.k0 += key, part.k1 += key;
  if (f.low_k0 != nullptr) part.low_k0 += key, part.low_k1 += key;
  if (f.starts != nullptr) part.starts += row;
  part.rows = rows, part.out = out;
  return part;
}

// Words of rows of a few vectors: one row after the other would wait for its own ciphers.
template <bool kOneKey, class Word>
void fill_narrow_rows(const Bits<Word>& op, const Fill& f) {
  constexpr uint64_t kStage = 1024, kEnd = kStage + kNarrow, kKeys = kOneKey ? 1 : kEnd;
  uint32_t k0[kKeys], k1[kKeys], c1[kEnd];
  const U32 c0 = Lanes::u(static_cast<uint32_t>(first_counter(f, 0) >> 32));
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows;) {
    uint64_t n = 0;
    for (; row < f.rows && n < kStage; ++row, n += f.count) {
      // What the last store writes beyond the row, the next row overwrites.
      const U32 low = iota() + static_cast<uint32_t>(first_counter(f, row));
      for (uint64_t i = 0; i < f.count; i += kLanes) {
        store(c1 + n + i, low + static_cast<uint32_t>(i));
        if (!kOneKey) store(k0 + n + i, Lanes::u(f.k0[row]));
        if (!kOneKey) store(k1 + n + i, Lanes::u(f.k1[row]));
      }
    }
    if constexpr (kOneKey) {
      const CountedCipher cipher[] = {{Lanes::u(f.k0[0]), Lanes::u(f.k1[0]), c0, c1}};
      write_blocks(op, n, out, cipher);
    } else {
      const StagedCipher cipher[] = {{k0, k1, c0, c1}};
      write_blocks(op, n, out, cipher);
    }
    out += n * sizeof(Word);
  }
}

void fill_narrow(const Bits<uint32_t>& op, const Fill& f) {
  f.one_key ? fill_narrow_rows<true>(op, f) : fill_narrow_rows<false>(op, f);
}
void fill_narrow(const Bits<uint64_t>& op, const Fill& f) {
  f.one_key ? fill_narrow_rows<true>(op, f) : fill_narrow_rows<false>(op, f);
}

template <int kBits>
struct WordFor {
  using Type = uint32_t;
};
template <>
struct WordFor<64> {
  using Type = uint64_t;
};

// Words first: with two loops for each operation the code would be half as large again.
template <class Op>
void fill_narrow(const Op& op, const Fill& f) {
  using Word = typename WordFor<Op::kWordBits>::Type;
  constexpr uint64_t kKeys = Op::kTwoKeys ? 2 : 1;
  Piece<Word> pieces[kKeys];
  MadeWords<Word> made[kKeys];
  const uint64_t rows_at_once = pieces[0].kSize / f.count;
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; row += rows_at_once) {
    const uint64_t rows = f.rows - row < rows_at_once ? f.rows - row : rows_at_once;
    for (uint64_t key = 0; key < kKeys; ++key) {
      Fill part = rows_of(f, row, rows, pieces[key].words);
      if (key == 1) part.k0 = part.low_k0, part.k1 = part.low_k1;
      fill_narrow(Bits<Word>(), part);
      made[key] = {pieces[key].words};
    }
    write_blocks(op, rows * f.count, out, made);
    out += rows * f.count * Op::kSize;
  }
}

// Whether all counters have one high word.
bool high_word_is_one(const Fill& f) {
  const uint64_t first = first_counter(f, 0);
  uint64_t differing = first ^ (first + f.count - 1);
  for (uint64_t row = 0; f.starts != nullptr && row < f.rows; ++row) {
    const uint64_t counter = first_counter(f, row);
    differing |= (counter ^ first) | ((counter + f.count - 1) ^ first);
  }
  return differing >> 32 == 0;
}

template <class Op>
void fill_rows(const Op& op, const Fill& f) {
  const uint64_t most = f.one_key ? kNarrow : kNarrowKeyed;
  if (f.count < most && f.rows > 1 && f.count > 0 && high_word_is_one(f)) {
    if (f.count < kLanes && f.starts == nullptr) return fill_short_rows(op, f);
    return fill_narrow(op, f);
  }
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; ++row) {
    fill_row(op, f, f.one_key ? 0 : row, first_counter(f, row), out);
    out += f.count * Op::kSize;
  }
}

}  // namespace

#endif  // SEEDBED_CPU_ROWS_H_

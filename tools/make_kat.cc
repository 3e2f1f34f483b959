// Writes known answers of threefry2x32-20 from Random123's own header, an implementation that this
// project has no part in. On Debian:
//   apt-get install librandom123-dev
//   g++ -O1 -o make_kat tools/make_kat.cc && ./make_kat > tests/support/kat/threefry2x32_20.txt
#include <Random123/threefry.h>

#include <cstdint>
#include <cstdio>
#include <iterator>

namespace {

void print(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1) {
  const threefry2x32_key_t key = {{k0, k1}};
  const threefry2x32_ctr_t counter = {{c0, c1}};
  const threefry2x32_ctr_t out = threefry2x32_R(20, counter, key);
  std::printf("%08x %08x  %08x %08x  %08x %08x\n", k0, k1, c0, c1, out.v[0], out.v[1]);
}

}  // namespace

int main() {
  std::puts("# threefry2x32-20, known answers (hexadecimal words); written by tools/make_kat.cc");
  std::puts("# key             counter            result");
  // Digits of pi, carries, sign bits, single bits.
  const uint32_t words[] = {0,          1,          2,          0x7FFFFFFF, 0x80000000,
                            0xFFFFFFFF, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344};
  constexpr int n = std::size(words);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      print(words[i], words[(i + j) % n], words[j], words[(i * 3 + j) % n]);
    }
  }
  uint32_t x = 12345;  // a full-period linear congruence
  const auto next = [&x] { return x = x * 1664525u + 1013904223u; };
  for (int i = 0; i < 100; ++i) {
    const uint32_t k0 = next(), k1 = next(), c0 = next(), c1 = next();
    print(k0, k1, c0, c1);
  }
}

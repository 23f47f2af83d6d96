package event

import "testing"

func deltaValue() []byte {
	h := goldenHead(OutputDelta)
	h.Conversation = ""
	return Append(nil, &h, AppendDelta(nil, &Delta{Content: " world"}))
}

func BenchmarkScanHead(b *testing.B) {
	value := deltaValue()
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		if _, err := ScanHead(value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeWhole(b *testing.B) {
	value := deltaValue()
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		v, err := decodeView(value)
		if err != nil {
			b.Fatal(err)
		}
		var d Delta
		if err := DecodeData(v.Data, &d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendDelta(b *testing.B) {
	h, d := goldenHead(OutputDelta), Delta{Content: " world"}
	value, data := make([]byte, 0, 1024), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		data = AppendDelta(data[:0], &d)
		value = Append(value[:0], &h, data)
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	rec := Record{Value: golden(b, JobRequested)}
	b.ReportAllocs()
	b.SetBytes(int64(len(rec.Value)))
	for b.Loop() {
		if _, _, err := DecodeRequest(&rec); err != nil {
			b.Fatal(err)
		}
	}
}

package llm

import (
	"net/http"

	"github.com/penstock-io/penstock/internal/fault"
)

// CodeForStatus is the fault's code for the HTTP status with which a provider
// refused or failed: the one table for all providers. It says whether a retry
// may help.
func CodeForStatus(status int) fault.Code {
	switch {
	case status == http.StatusTooManyRequests:
		return fault.RateLimited
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return fault.ProviderTimeout
	case status == http.StatusNotFound:
		return fault.ModelNotFound
	case status == http.StatusConflict, status == http.StatusTooEarly:
		return fault.ProviderError // the official SDKs retry them as well
	case status >= 400 && status < 500:
		return fault.ProviderRejected
	default:
		return fault.ProviderError // 5xx, Anthropic's 529, and what is no error status at all
	}
}
